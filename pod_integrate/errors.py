"""Every error a user of pod-attention can cause, in one tree.

A message says what was wrong, what was got, what the limit is and what to do.
"""


class PodAttentionError(Exception):
    """Base of all errors below: catch this one to catch them all."""


class ShapeError(PodAttentionError, ValueError):
    """A tensor or length list does not fit the contract of the op."""


class DtypeError(PodAttentionError, TypeError):
    """A tensor has a dtype that the op or the kernel does not take."""


class DeviceMismatchError(PodAttentionError, ValueError):
    """Tensors of one call lie on different devices."""


class PageIndexError(PodAttentionError, IndexError):
    """A page index lies outside of the KV cache, or the index list is too short."""


class ConfigError(PodAttentionError, ValueError):
    """A PodConfig value is malformed whatever the device."""


class ConfigInfeasibleError(ConfigError):
    """A well-formed PodConfig does not fit this device and geometry."""


class KernelUnavailableError(PodAttentionError, RuntimeError):
    """No compiled kernel can run on this device; the message names the remedy."""


class BuildError(PodAttentionError, RuntimeError):
    """A native build failed; the message holds the command and its output."""


class MismatchError(PodAttentionError, AssertionError):
    """A config's answers differ from the default's by more than rounding: a bug of a kernel."""


class TableError(PodAttentionError, ValueError):
    """A config table is malformed; the last good one stays in use."""


class TraceError(PodAttentionError, ValueError):
    """A trace message is malformed, too large or of an unknown version."""


class SettingsError(PodAttentionError, ValueError):
    """An environment value is malformed; start-up stops."""


class UnsupportedFeatureError(PodAttentionError, RuntimeError):
    """The engine asks for a feature that POD does not serve; names the alternative."""


class StartError(PodAttentionError, RuntimeError):
    """A child process died or did not answer in time; the message ends with its log's tail."""
