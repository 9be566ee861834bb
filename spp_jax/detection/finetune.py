def train(config, workdir, data, proposer):
    raise NotImplementedError
