"""The studies that the simulator can make, one file each."""
