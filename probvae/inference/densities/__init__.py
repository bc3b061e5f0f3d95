"""Log densities and divergences of model and guide, without any loop over data or training.

In: the terms of log w by Pyro's handlers or by distributions (``traces``), KL divergences in closed form (``kl``),
moments of q_x (``moments``), the refusal of point masses (``point_mass``), and the error for parameters that no
distribution has (``non_finite``).
Out: bounds and estimates of whole data sets (``evaluation``, ``evidence``); distributions of single components
(``probvae.models``, ``guides``).
The door is :func:`~probvae.inference.densities.traces.log_weights`.
"""
