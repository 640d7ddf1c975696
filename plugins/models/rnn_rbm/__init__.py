"""The `rnn_rbm` model: surprise and synthesized frames."""
