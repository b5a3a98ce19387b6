"""What a line is: pure reading and writing of its text."""
