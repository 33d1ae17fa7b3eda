"""Write a run as a folder that transformers, PEFT and vLLM open, with its items and how to write only these.

    python -m igd_jax.export --workdir=RUN --output=HF_DIR
    python -m igd_jax.export --workdir=RUN --output=HF_DIR --dtype=bfloat16 --config.decode.alpha=0.2
    python -m igd_jax.export --workdir=RUN --output=ADAPTER_DIR --adapter

The folder (docs/export.md) holds the model of the best checkpoint as safetensors, LoRA merged, with config.json and
tokenizer; the candidates with their gain in trie.npz and items.jsonl; prompt and settings in igd_jax.json; and code for
other programs, igd_transformers.py and igd_vllm.py. What cannot be exported is told in a line each.
"""

from absl import flags
from ml_collections import ConfigDict

from igd_jax.core import errors
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, atomic_folder, local_path
from igd_jax.core.locks import locked
from igd_jax.core.log import say
from igd_jax.session.exporting import check_adapter, write_folder
from igd_jax.session.session import set_up_to_decode
from igd_jax.session.weights import trained_model
from igd_jax.settings.config_flags import define_config_flag, load_config
from igd_jax.settings.sections import DTYPES


def export(
    config: ConfigDict, workdir: Workdir, output: str, *, dtype: str = DTYPES[0], adapter: bool = False
) -> list[str]:
    """Write the exported folder of a run.

    Args:
      config: the config, which may differ from that of the run in how it is decoded.
      workdir: folder of the run.
      output: folder to write, which may exist if it is empty.
      dtype: dtype of the weights, one of `settings.sections.DTYPES`.
      adapter: whether only the adapters of a run with LoRA are written, for PEFT.

    Returns:
      One sentence about each thing that is not exported; they are printed, too.

    Raises:
      InputError: the output is not empty, the config is bad, or there is no model, or none that other programs know.
    """
    folder = local_path(output, option="--output").absolute()
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise InputError(
            f"--output={output} exists and is not an empty folder; name another one, or remove it yourself"
        )
    with locked(folder):  # before the model is read: where no lock can be, no folder can
        session = set_up_to_decode(config, workdir)
        lora = check_adapter(session) if adapter else None
        index = session.decode_index
        trained = trained_model(session, workdir, session.context(index))
        with atomic_folder(folder) as partial:
            notes = write_folder(partial, session, index, trained, config, dtype=dtype, lora=lora)
    for note in notes:
        say(f"note: {note}")
    say(f"written to {folder}")
    return notes


def define_flags() -> None:
    """Flags of the command line."""
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    flags.DEFINE_string("output", None, "Folder to write; it must not exist, or be empty.", required=True)
    flags.DEFINE_enum("dtype", DTYPES[0], DTYPES, "Dtype of the weights.")
    flags.DEFINE_bool("adapter", False, "Write the LoRA adapters alone, for PEFT, instead of merging them.")
    define_config_flag()


def main() -> None:
    """Entry point."""
    given, workdir = flags.FLAGS, Workdir(flags.FLAGS.workdir)
    export(load_config(given.config, workdir), workdir, given.output, dtype=given.dtype, adapter=given.adapter)


if __name__ == "__main__":
    define_flags()
    errors.run(main)
