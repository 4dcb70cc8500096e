"""Model families as Keras models on TensorFlow, one file per family."""
