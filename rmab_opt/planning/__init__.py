"""What arms are worth: indices, prices and upper bounds."""
