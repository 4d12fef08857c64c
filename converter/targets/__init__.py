"""The engines a file may be written for, and the layout and scales that they can hold."""
