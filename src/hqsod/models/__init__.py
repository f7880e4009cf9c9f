"""The networks: SwinIR (upscaler), CascadePSP (refiner), PurNet (saliency)."""
