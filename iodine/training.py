"""Train step, loop."""
import tensorflow as tf
def train_step(model, optimizer, data, z=None, seed=None):
  with tf.GradientTape() as tape:
    loss, scalars, _ = model(data, z=z, seed=seed)
  variables = model.trainable_variables
  learning_rate = optimizer.learning_rate
  gradients = tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
  norm = optimizer.apply(gradients, variables)
  return {**scalars, "debug/global_grad_norm": norm, "debug/learning_rate": learning_rate}
