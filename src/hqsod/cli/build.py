"""`hqsod build`, `check`, `upscale` and `refine`."""
