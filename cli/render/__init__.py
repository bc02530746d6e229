"""Rendering: values in, text out. Colour is added here and taken away by click where nobody wants it."""
