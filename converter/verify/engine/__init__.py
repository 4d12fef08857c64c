"""`verify FILE --engine PATH`: the user's own engine on FILE, compared with our runtime on FILE."""
