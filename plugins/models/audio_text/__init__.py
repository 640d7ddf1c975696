"""Model `audio_text`: names of sounds by ONNX encoders of audio and of text."""
