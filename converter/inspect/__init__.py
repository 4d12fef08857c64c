"""What a file or checkpoint is: `tritpack inspect`."""
