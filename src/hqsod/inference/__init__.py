"""Networks ready to run: uint8 arrays in, uint8 or float32 arrays out."""
