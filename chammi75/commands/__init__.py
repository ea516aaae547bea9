"""What the command ``chammi75`` can do, a file for each group of commands.

Each has ``register(app)``, which the list in ``chammi75.cli`` calls; heavy libraries are imported inside the functions.
"""
