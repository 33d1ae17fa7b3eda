"""AdamW with warm-up, a schedule and clipping: the recipe of the published runs (docs/methods.md, Published recipe)."""

import optax

SCHEDULES = ("linear", "cosine", "constant")


def make_schedule(name: str, *, learning_rate: float, warmup_steps: int, num_steps: int) -> optax.Schedule:
    """Learning rate by number of updates: linear warm-up from 0, then one of `SCHEDULES`, down to 0 or constant."""
    after = max(num_steps - warmup_steps, 1)
    decay = {
        "linear": optax.linear_schedule(learning_rate, 0.0, after),
        "cosine": optax.cosine_decay_schedule(learning_rate, after),
        "constant": optax.constant_schedule(learning_rate),
    }[name]
    return optax.join_schedules([optax.linear_schedule(0.0, learning_rate, warmup_steps), decay], [warmup_steps])


def make_optimizer(schedule: optax.Schedule, *, clip_norm: float, weight_decay: float) -> optax.GradientTransformation:
    """AdamW (0.9, 0.999, 1e-8) after clipping by the global norm."""
    return optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.adamw(schedule, b1=0.9, b2=0.999, eps=1e-8, weight_decay=weight_decay),
    )
