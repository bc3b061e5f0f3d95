"""The first workload in pythae, with its own trainer's epochs."""

import logging
import os
import tempfile

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from speed_worker import Run, Workload, serve
from torch import Tensor, nn

# an epoch of pythae's trainer is what can be run; its own work at an epoch's start is shared by so many steps
_STEPS_OF_AN_EPOCH = 50


class Encoder(BaseEncoder):
    """pythae's output names; its variance is a logarithm."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        (width,) = workload.hidden
        self.trunk = nn.Sequential(nn.Linear(workload.data_dim, width), nn.ReLU())
        self.loc, self.log_variance = nn.Linear(width, workload.latent_dim), nn.Linear(width, workload.latent_dim)

    def forward(self, x: Tensor) -> ModelOutput:
        features = self.trunk(x)
        return ModelOutput(embedding=self.loc(features), log_covariance=self.log_variance(features))


class Decoder(BaseDecoder):
    """Probabilities: what pythae's Bernoulli likelihood takes."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        (width,) = workload.hidden
        self.layers = nn.Sequential(
            nn.Linear(workload.latent_dim, width), nn.ReLU(), nn.Linear(width, workload.data_dim), nn.Sigmoid()
        )

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.layers(z))


def trainer_of(workload: Workload, num_data: int, folder: str) -> BaseTrainer:
    """pythae's trainer on so many data, ready to train."""
    config = VAEConfig(input_dim=(workload.data_dim,), latent_dim=workload.latent_dim, reconstruction_loss="bce")
    x = (torch.rand(num_data, workload.data_dim) < 0.3).float()
    trainer = BaseTrainer(
        VAE(config, Encoder(workload), Decoder(workload)),
        BaseDataset(x, torch.zeros(num_data)),
        training_config=BaseTrainerConfig(
            output_dir=folder,
            learning_rate=1e-3,
            per_device_train_batch_size=workload.batch_size,
            train_dataloader_num_workers=0,
            no_cuda=True,
        ),
        callbacks=[],
    )
    trainer.prepare_training()
    return trainer


def epochs(workload: Workload) -> Run:
    """Epochs of pythae's trainer; a number of steps is rounded up to whole ones."""
    if workload.likelihood != "bernoulli" or len(workload.hidden) != 1:
        raise ValueError("only the Bernoulli model with one hidden layer is written for pythae")
    folder = tempfile.mkdtemp()
    trainer = trainer_of(workload, _STEPS_OF_AN_EPOCH * workload.batch_size, folder)
    first = 1

    def run(num_steps: int) -> None:
        nonlocal first
        for _ in range(-(-num_steps // _STEPS_OF_AN_EPOCH)):
            trainer.train_step(first)
            first += 1

    run.told = {"multiple": _STEPS_OF_AN_EPOCH}  # type: ignore[attr-defined]
    return run


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    serve({"pythae": epochs})
