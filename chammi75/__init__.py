"""chammi75: the world's public microscopy images, usable as one dataset."""
