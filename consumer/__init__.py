"""The consumer: envelopes in, one record per call in the lake, exactly once."""
