"""One file per situation and kind: what is desired, the world it meets, and the plan that must come of it."""
