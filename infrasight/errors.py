"""The one exception tree. A room wraps its libraries' errors into these at its edge; nobody outside a room sees another library's error.

    InfraSightError
    +-- MailboxClosed     a put into a closed mailbox, or a get from one that is closed and empty
    +-- ActorFailed       an actor crashed more often than its restart policy allows
    +-- KernelError       the kernel cannot be traced: no BTF, no tracefs, no right to, or a program that it refuses
    +-- MetricsError      the metrics' endpoint cannot be had
    +-- SettingsError     a flag or an environment variable has a value that it cannot have
    +-- WireError         two processes could not talk
    |   +-- Unreachable       nobody listens there, or what answers is no InfraSight server
    |   +-- Disconnected      the other side went away in the middle of a call
    |   +-- CannotListen      the address is taken, not ours, or open to other machines without TLS, access control or `insecure`
    |   +-- InvalidRequest    a message that is malformed or makes no sense
    |   +-- InvalidBatch      a payload that is not what its event kind says
    |   +-- CallFailed        the server gave up on a call; the text is its own
    |   +-- CredentialsUnusable  a certificate, key or token file that cannot be used
    |   +-- AccessDenied      the server knows who calls, and they may not
    |       +-- Unauthenticated   it does not know: no certificate, no token, or none that counts
    +-- CommandLineError  a command of `infrasight` cannot do what it was asked
    |   +-- ChildFailed       node or server did not start, or ended too often
    |   +-- DataDirectoryError  cannot be written, or another `infrasight up` uses it
    +-- StoreError        the store cannot be used now; what was accepted waits
    |   +-- StoreLocked       another process has it
    |   +-- StoreUnavailable  it cannot be reached, read or written
    |   +-- StoreIncompatible its tables are not what this version can work with
    +-- QueryRefused      not one read-only statement in a format that there is
    +-- QueryFailed       the database could not answer; the text is its own
"""


class InfraSightError(Exception):
    """Root of everything InfraSight raises on purpose."""


class MailboxClosed(InfraSightError):
    """The mailbox takes nothing more (put), or has nothing left and never will (get)."""

    def __init__(self, mailbox: str) -> None:
        super().__init__(f"mailbox {mailbox!r} is closed")
        self.mailbox = mailbox


class ActorFailed(InfraSightError):
    """An actor is given up: it crashed beyond its restart budget. `cause` is its last exception (also `__cause__`)."""

    def __init__(self, actor: str, cause: BaseException) -> None:
        super().__init__(f"actor {actor!r} failed: {cause!r}")
        self.actor = actor
        self.cause = cause


class SettingsError(InfraSightError):
    """A flag or an environment variable has a value that it cannot have; the text names it."""


class KernelError(InfraSightError):
    """The kernel cannot be traced as asked; the message says what is missing."""


class MetricsError(InfraSightError):
    """The metrics cannot be served where they were asked for."""


class WireError(InfraSightError):
    """Two processes could not talk."""


class Unreachable(WireError):
    """Nobody listens there, or what answers is no InfraSight server."""


class Disconnected(WireError):
    """The other side went away in the middle of a call."""


class CannotListen(WireError):
    """The address is taken, not ours, or open to other machines without TLS and access control, or without `insecure` being asked for."""


class InvalidRequest(WireError):
    """A message that is malformed or makes no sense; it was refused."""


class InvalidBatch(WireError):
    """A payload that is not what its event kind says; one line says why. Sending it again is pointless."""


class CallFailed(WireError):
    """The server gave up on a call; the text is its own."""


class CredentialsUnusable(WireError):
    """A certificate, key or token file that cannot be used; the text names the file and never what is in it."""


class AccessDenied(WireError):
    """Who calls may not do that; the text says what who may not."""


class Unauthenticated(AccessDenied):
    """The server does not know who calls: no certificate, no token, or none that counts there."""


class CommandLineError(InfraSightError):
    """A command of `infrasight` cannot do what it was asked."""


class ChildFailed(CommandLineError):
    """A process that `infrasight` runs did not start, or ended more often than is forgiven; `reason` is its own last line."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class DataDirectoryError(CommandLineError):
    """A data directory cannot be written, or another `infrasight up` uses it."""


class StoreError(InfraSightError):
    """The store cannot be used now; what was accepted waits."""


class StoreLocked(StoreError):
    """Another process has the store."""


class StoreUnavailable(StoreError):
    """The store cannot be reached, read or written."""


class StoreIncompatible(StoreError):
    """The store's tables are not what this version can work with: a newer one made them, or somebody changed them."""


class QueryRefused(InfraSightError):
    """Not one read-only statement in a format that there is."""


class QueryFailed(InfraSightError):
    """The database could not answer; the text is its own, in one line."""
