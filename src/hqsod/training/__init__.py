"""Training networks: PurNet, the upscaler and the refiner; `job` goes through the stages."""
