"""Networks that judge an utterance from its stored rows; each body is a file, `network.Network` has one of them."""
