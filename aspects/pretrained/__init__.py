"""Published checkpoints as networks of this library: `load(DIR)`, `save(pretrained, DIR)`; one importer a file.

    from aspects import pretrained
    net, variables, *_ = pretrained.load('path/to/gpt2')
    logits = net.apply(variables, ids, mask)
    texts = pretrained.load('path/to/clip#text')        # one of the networks of a directory that holds two

A file is called like the `model_type` of the configs it reads. The guide is docs/pretrained.md.
"""
from aspects.nn.huggingface import check, describe, load, Pretrained, read, save, towers

__all__ = ['Pretrained', 'check', 'describe', 'load', 'read', 'save', 'towers']
