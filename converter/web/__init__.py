"""The folder of `tritpack web`: a page on which a model runs in the visitor's browser."""
