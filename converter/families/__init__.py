"""What each checkpoint family is: data in the YAML files here, and the code that recognises them."""
