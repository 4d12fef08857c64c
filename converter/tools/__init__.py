"""What commands do besides converting and verifying: inspect, doctor, make_dummy, lm_eval, pack, perplexity."""
