"""What several test packages share: worlds to plan in, and plans made from them."""
