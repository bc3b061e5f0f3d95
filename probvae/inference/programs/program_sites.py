"""The sites of a model and a guide that were written by hand, and the reasons why they cannot be read."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Transform, VonMises, biject_to, constraints

from probvae.errors import ArgumentError
from probvae.inference.densities.point_mass import point_mass_in, without_density

Site = Mapping[str, Any]


class LatentSite(NamedTuple):
    """A latent site of each datum: its name, the shape of its unconstrained value, and the way from there.

    ``is_real`` says that this way is the identity, ``is_circular`` that the value is an angle.
    """

    name: str
    shape: torch.Size
    to_value: Transform
    is_real: bool
    is_circular: bool = False

    @property
    def names(self) -> list[str]:
        """The names of its entries of z: the site's name, numbered if the site has several entries."""
        size, unit = self.shape.numel(), "" if self.is_real else " (unconstrained)"
        return [self.name + unit] if not self.shape else [f"{self.name}[{k}]{unit}" for k in range(size)]


class Layout(NamedTuple):
    """The latent sites, which together are the vector z, and the names of the observed ones, which are x.

    ``is_discrete`` says that p(x|z) is a probability.
    """

    latents: tuple[LatentSite, ...]
    observed: tuple[str, ...]
    is_discrete: bool

    @property
    def latent_dim(self) -> int:
        """d, the length of z."""
        return sum(self._sizes)

    @property
    def names(self) -> list[str]:
        """The names of the d entries of z in the program."""
        return [name for site in self.latents for name in site.names]

    @property
    def is_circular(self) -> list[bool]:
        """For each entry of z, whether it is an angle."""
        return [site.is_circular for site in self.latents for _ in range(site.shape.numel())]

    @property
    def _sizes(self) -> list[int]:
        return [site.shape.numel() for site in self.latents]

    def values(self, z: Tensor) -> dict[str, Tensor]:
        """The sites' values at the rows of ``z`` (R, d)."""
        return {site.name: site.to_value(part) for site, part in self._parts(z)}

    def log_volume(self, z: Tensor) -> Tensor:
        """log |det d values / d z| (R,)."""
        volumes = [site.to_value.log_abs_det_jacobian(part, site.to_value(part)) for site, part in self._parts(z)]
        return sum((volume.reshape(len(z), -1).sum(1) for volume in volumes), start=torch.zeros_like(z[:, 0]))

    def z_of(self, trace: Trace) -> Tensor:
        """z (R, d) from the latent sites' values."""
        values: list[Any] = [trace.nodes[site.name]["value"] for site in self.latents]
        pairs = zip(self.latents, values, strict=True)
        return torch.cat([_rows(site.to_value.inv(value)) for site, value in pairs], dim=1)

    def x_of(self, trace: Trace) -> Tensor:
        """x (R, D) from the observed sites' values."""
        values: list[Any] = [trace.nodes[name]["value"] for name in self.observed]
        return torch.cat([_rows(value) for value in values], dim=1)

    def log_latent(self, trace: Trace) -> Tensor:
        """The latent sites' log density (R,), in the measure of their values."""
        return _log_prob(trace, [site.name for site in self.latents])

    def log_likelihood(self, trace: Trace) -> Tensor:
        """The observed sites' log density (R,)."""
        return _log_prob(trace, self.observed)

    def _parts(self, z: Tensor) -> list[tuple[LatentSite, Tensor]]:
        parts = z.split(self._sizes, dim=1)
        return [(s, part.reshape(-1, *s.shape)) for s, part in zip(self.latents, parts, strict=True)]


def layout_of(model: Trace, guide: Trace, num_data: int) -> Layout:
    """The layout of a pair of traces for ``num_data`` data; :class:`~probvae.errors.ArgumentError` where it has none.

    The traces must be those of one datum where the support of a site depends on parameters.
    """
    latent, observed = _latent_sites(model), _observed_sites(model)
    for program, sites in (("model", latent | observed), ("guide", _latent_sites(guide))):
        for name, site in sites.items():
            _check_site(program, name, site, num_data)
    _check_names(set(latent), _latent_sites(guide))
    if not observed:
        raise ArgumentError("model: expected a site that observes x, got none. Give obs=... to the site of the data.")
    is_discrete = all(site["fn"].support.is_discrete for site in observed.values())
    return Layout(tuple(_latent_site(name, site) for name, site in latent.items()), tuple(observed), is_discrete)


def latents_of(trace: Trace) -> Trace:
    """The trace with its latent sites only: replayed whole, a plate of the guide would set the size of the model's."""
    latents = trace.copy()
    for name in set(trace.nodes) - set(_latent_sites(trace)):
        latents.remove_node(name)
    return latents


def _latent_sites(trace: Trace) -> dict[str, Site]:
    """The sites that were drawn, by name."""
    return {name: site for name, site in _sample_sites(trace).items() if not site["is_observed"]}


def _observed_sites(trace: Trace) -> dict[str, Site]:
    return {name: site for name, site in _sample_sites(trace).items() if site["is_observed"]}


def _sample_sites(trace: Trace) -> dict[str, Site]:
    nodes: dict[str, Any] = trace.nodes
    return {
        name: site
        for name, site in nodes.items()
        if site["type"] == "sample" and not site_is_subsample(site) and not site["infer"].get("_deterministic")
    }


def _check_names(latent: set[str], guided: Mapping[str, Site]) -> None:
    if latent != set(guided) or not latent:
        raise ArgumentError(
            f"guide: expected the model's latent sites {sorted(latent)}, got {sorted(guided)}. Draw each of them in "
            "both programs, under the same name."
        )


def _check_site(program: str, name: str, site: Site, num_data: int) -> None:
    frames = site["cond_indep_stack"]
    if any(not frame.vectorized for frame in frames):
        raise ArgumentError(
            f"{program}: site {name!r} stands in a sequential plate. Use `with pyro.plate(...)`, without a loop."
        )
    if not frames:
        raise ArgumentError(
            f"{program}: expected every site in a plate over the data, got site {name!r} outside of one (one value for "
            "all data). Draw it in `with pyro.plate('data', x.shape[0])`; what all data share must be a parameter."
        )
    if len(frames) > 1 or frames[0].dim != -1 or frames[0].size != num_data:
        plates = ", ".join(f"{frame.name!r} of size {frame.size} at dim {frame.dim}" for frame in frames)
        raise ArgumentError(
            f"{program}: expected site {name!r} in one plate of size {num_data}, the number of data, at dim -1, got "
            f"{plates}. Use pyro.plate('data', x.shape[0]), and .to_event(1) in the place of other plates."
        )
    _check_distribution(program, name, site)


def _check_distribution(program: str, name: str, site: Site) -> None:
    if type(site["fn"]).__name__ == "Unit":
        raise ArgumentError(
            f"{program}: site {name!r} is a pyro.factor, which cannot be drawn from. Write a distribution in its place."
        )
    if not site["is_observed"] and not _is_discrete(site) and (mass := point_mass_in(site["fn"])) is not None:
        raise without_density(f"{program}, site {name!r}", f"a point mass ({mass})")
    if not site["is_observed"] and _is_discrete(site):
        raise ArgumentError(
            f"{program}: expected latent sites with a density, got the discrete site {name!r} "
            f"({type(site['fn']).__name__}). Sum it out: a mixture distribution in the place of the two sites."
        )


def _is_discrete(site: Site) -> bool:
    return bool(site["fn"].support.is_discrete)


def _latent_site(name: str, site: Site) -> LatentSite:
    support = site["fn"].support
    to_value = biject_to(support)
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    shape = torch.Size(to_value.inverse_shape(site["fn"].event_shape))
    inner: Any = site["fn"]
    while not isinstance(inner, VonMises) and hasattr(inner, "base_dist") and not hasattr(inner, "transforms"):
        inner = inner.base_dist
    return LatentSite(name, shape, to_value, type(support) is type(constraints.real), isinstance(inner, VonMises))


def _log_prob(trace: Trace, names: Sequence[str]) -> Tensor:
    return torch.stack([_site_log_prob(trace.nodes[name]) for name in names]).sum(0)


def _site_log_prob(site: Site) -> Tensor:
    """The site's own log density (R,): a weight from ``poutine.scale`` or a subsampling plate is no part of p."""
    log_prob = scale_and_mask(site["fn"].log_prob(site["value"]), 1.0, site["mask"])
    return log_prob.expand(_num_rows(site))


def _num_rows(site: Site) -> int:
    (frame,) = site["cond_indep_stack"]
    return int(frame.size)


def _rows(values: Tensor) -> Tensor:
    return values.reshape(len(values), -1)
