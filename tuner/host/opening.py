"""Opening the one Tuner over its database."""

from __future__ import annotations

import sqlalchemy as sa

from pod_integrate.errors import SettingsError
from pod_integrate.redact import public_url
from tuner.core import Tuner
from tuner.settings import TunerSettings
from tuner.store.database import StorageError
from tuner.store.storage import Store, reason


def open_tuner(settings: TunerSettings, host_mode: str = "plain") -> Tuner:
    """A Tuner over the database of `settings`; SettingsError says why there is none."""
    store = Store(settings.url)
    try:
        tuner = Tuner(settings, store)
    except (sa.exc.SQLAlchemyError, StorageError) as error:
        store.close()
        raise SettingsError(
            f"database {public_url(settings.url)} cannot be read: {reason(error)}. Restore a "
            "backup, or move it away: the tuner then starts empty"
        ) from error
    except OSError as error:
        store.close()
        raise SettingsError(
            f"POD_TUNER_TRACE_DIR: cannot use {settings.archive_dir}: {error.strerror}; choose "
            "another folder"
        ) from error
    tuner.host_mode = host_mode
    return tuner
