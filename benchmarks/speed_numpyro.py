"""The workloads in NumPyro: stochastic variational inference, many minibatches in one jitted scan."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import optax
from jax import Array, lax, random
from numpyro import distributions as dist
from numpyro.infer import SVI, Trace_ELBO
from speed_worker import Run, Workload, serve

# steps of one scan, at most an epoch: a scan of another length would be another compilation
_STEPS_AT_ONCE = 50


def scan(workload: Workload) -> Run:
    """Steps in one call, the epoch's shuffled data held on the device."""
    x = _data(workload)
    svi = SVI(*_programs(workload), optax.adam(1e-3), Trace_ELBO())
    state = svi.init(random.PRNGKey(0), x[: workload.batch_size])
    shuffled = jax.jit(lambda key: random.permutation(key, x))
    epoch, key, done = shuffled(random.PRNGKey(1)), random.PRNGKey(2), 0
    at_once = min(_STEPS_AT_ONCE, workload.num_batches)

    @jax.jit
    def steps(state: Any, epoch: Array, first: Array) -> Any:
        def step(state: Any, number: Array) -> Any:
            rows = lax.dynamic_slice_in_dim(epoch, (first + number) * workload.batch_size, workload.batch_size)
            return svi.update(state, rows)

        return lax.scan(step, state, jnp.arange(at_once))

    def run(num_steps: int) -> None:
        nonlocal state, epoch, key, done
        for _ in range(-(-num_steps // at_once)):
            if done + at_once > workload.num_batches:
                key, use = random.split(key)
                epoch, done = shuffled(use), 0
            state, losses = steps(state, epoch, done)
            losses.block_until_ready()
            done += at_once

    run.told = {"multiple": at_once}  # type: ignore[attr-defined]
    return run


def _data(workload: Workload) -> Array:
    x = random.uniform(random.PRNGKey(3), (workload.num_data, workload.data_dim))
    return (x < 0.3).astype(jnp.float32) if workload.likelihood == "bernoulli" else x


def _linear(name: str, inputs: Array, width: int) -> Array:
    bound = inputs.shape[-1] ** -0.5
    weight = numpyro.param(
        name, lambda key: random.uniform(key, (inputs.shape[-1], width), minval=-bound, maxval=bound)
    )
    return inputs @ weight + numpyro.param(name + " bias", jnp.zeros(width))


def _trunk(name: str, values: Array, widths: tuple[int, ...]) -> Array:
    for number, width in enumerate(widths):
        values = jax.nn.relu(_linear(f"{name} {number}", values, width))
    return values


def _programs(workload: Workload) -> tuple[Callable[[Array], None], Callable[[Array], None]]:
    d = workload.latent_dim

    def model(x: Array) -> None:
        with numpyro.plate("data", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(d), 1.0).to_event(1))
            output = _linear("out", _trunk("decoder", z, workload.hidden[::-1]), workload.data_dim)
            if workload.likelihood == "bernoulli":
                likelihood = dist.Bernoulli(logits=output)
            else:
                likelihood = dist.Normal(output, jnp.exp(0.5 * numpyro.param("log variance", jnp.zeros(()))))
            numpyro.sample("x", likelihood.to_event(1), obs=x)

    def guide(x: Array) -> None:
        with numpyro.plate("data", x.shape[0]):
            features = _trunk("encoder", x, workload.hidden)
            loc, scale = _linear("loc", features, d), jnp.exp(_linear("log scale", features, d))
            if workload.covariance == "diagonal":
                numpyro.sample("z", dist.Normal(loc, scale).to_event(1))
                return
            row, column = jnp.tril_indices(d, -1)
            factor = jnp.zeros((x.shape[0], d, d)).at[:, row, column].set(_linear("below", features, len(row)))
            factor = factor + scale[:, :, None] * jnp.eye(d)
            numpyro.sample("z", dist.MultivariateNormal(loc, scale_tril=factor))

    return model, guide


if __name__ == "__main__":
    serve({"numpyro": scan})
