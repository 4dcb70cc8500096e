"""The families as Keras models on TensorFlow, a file each."""
