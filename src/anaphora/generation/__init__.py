"""Text from a trained model: sampling."""
