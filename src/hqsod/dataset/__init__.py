"""What jobs share of a data set on disk: layouts, manifest, decisions, card, folder names."""
