"""The twin's own behaviour: what each of its parts does, as somebody who uses the ports would notice it."""
