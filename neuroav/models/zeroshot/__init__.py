"""Zero-shot networks: audio-visual features and class texts meet in one space."""
