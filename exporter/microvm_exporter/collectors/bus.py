"""The bus that systemd is on: a private connection, served by a thread of its own.

The only module that imports pydbus. The thread runs a main context of its own all the time, so
that signals are dealt with as they come and never pile up; calls are handed over to it and waited
for. A connection is never mended: `Bus.open` makes another when one was closed or let down.

Properties are read one by one. ``GetAll`` of a unit looks cheaper and is not: it includes
``UnitFileState``, for which PID 1 goes through all its unit directories, once for each unit after
each daemon-reload (systemd 252, 6,000 units: 17 s of its time).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any, Final

import pydbus
from gi.repository import Gio, GLib, GObject

from microvm_exporter.collectors.bus_terms import (
    MANAGER,
    MANAGER_PATH,
    BadAddress,
    BusClosed,
    BusError,
    BusTimeout,
    Listed,
    Property,
)
from microvm_exporter.collectors.news import News
from microvm_exporter.collectors.pending import Pending
from microvm_exporter.collectors.signals import Signals
from microvm_exporter.collectors.window import Window

__all__ = ["Bus"]

_SYSTEMD: Final = "org.freedesktop.systemd1"
_UNIT: Final = "org.freedesktop.systemd1.Unit"
_PROPERTIES: Final = "org.freedesktop.DBus.Properties"
_PROPERTY: Final = GLib.VariantType("(v)")
_DBUS: Final = "org.freedesktop.DBus"
_DBUS_PATH: Final = "/org/freedesktop/DBus"
_FLAGS: Final = Gio.DBusCallFlags.NO_AUTO_START
_ALL_SIGNALS: Final = Gio.DBusSignalFlags.NONE
_NO_TIMEOUT: Final = 2**31 - 1  # G_MAXINT; a timer for each call is dear, and `_ask` has patience

_BATCH: Final = 2000  # properties, some 0.2 s
_PAUSE: Final = 20  # milliseconds, when not even one call is allowed
_ALREADY_SUBSCRIBED: Final = "org.freedesktop.systemd1.AlreadySubscribed"
_LIMITS_EXCEEDED: Final = "org.freedesktop.DBus.Error.LimitsExceeded"
_GONE: Final = frozenset(
    {
        "org.freedesktop.DBus.Error.UnknownObject",
        "org.freedesktop.DBus.Error.UnknownInterface",
        "org.freedesktop.systemd1.NoSuchUnit",
    }
)


class Bus:
    """A connection to systemd. All but `close` is for one thread at a time.

    What systemd tells of units goes to ``signals``: ``names`` are the properties that are read of a
    change, and only units count whose name begins with one of ``prefixes``. Whatever goes wrong is
    a `BusError`; that there is no answer for ``patience`` seconds, too.
    """

    def __init__(
        self,
        address: str,
        signals: Signals,
        *,
        prefixes: tuple[str, ...],
        names: tuple[str, ...],
        patience: float,
    ) -> None:
        self._address = address
        self._signals = signals
        self._news = News(signals, prefixes, names)
        self._patience = patience
        self._context = GLib.MainContext()
        self._connection: Any = None
        self._connecting: Pending | None = None
        self._waiting: Pending | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._serve, name="bus", daemon=True)
        self._thread.start()

    def open(self) -> bool:
        """Connect, unless there is a connection. Tell whether there was none.

        pydbus cannot be told to give up: a bus that accepts and does not answer keeps the thread,
        and the next call waits on for the same attempt.
        """
        if self._connecting is None or self._connecting.done():
            self._connecting = self._hand_over(self._connect)
        is_new: bool = self._wait(self._connecting)
        return is_new

    def subscribe(self) -> None:
        """Have systemd send this connection signals, unless it does already."""
        try:
            self._call("Subscribe", "()", ())
        except BusError as error:
            if error.name != _ALREADY_SUBSCRIBED:
                raise

    def list_units(self, patterns: Sequence[str]) -> list[Listed]:
        """List the loaded units whose names match one of the patterns, as of one moment."""
        reply = self._call("ListUnitsByPatterns", "(asas)", ((), patterns))
        rows = reply.get_child_value(0)
        return [_listed(rows.get_child_value(i).get_child_value) for i in range(rows.n_children())]

    def read(self, wanted: Sequence[Property]) -> list[Any]:
        """Read properties, many at a time. Those of an object that is gone are None."""
        values: list[Any] = []
        for start in range(0, len(wanted), _BATCH):
            batch = wanted[start : start + _BATCH]
            values += self._ask(partial(_read, batch))
        return values

    def close(self) -> None:
        """End the connection and the thread; who waits for an answer meets `BusClosed`."""
        self._ended = True
        self._context.wakeup()
        if self._waiting is not None:
            self._waiting.settle(BusClosed("the exporter ends"))
        self._thread.join(0.5)

    def _call(self, method: str, signature: str, arguments: tuple[Any, ...]) -> GLib.Variant:
        def send(connection: Any, done: Pending) -> None:
            target = (_SYSTEMD, MANAGER_PATH, MANAGER, method)
            values = GLib.Variant(signature, arguments)
            connection.call(*target, values, None, _FLAGS, _NO_TIMEOUT, None, _receive, done)

        return self._ask(send)

    def _ask(self, send: Callable[[Any, Pending], None]) -> Any:
        def job(done: Pending) -> None:
            if self._connection is None:
                raise BusClosed("the connection was closed")
            send(self._connection, done)

        try:
            return self._wait(self._hand_over(job))
        except BusTimeout:
            # What was asked must not pile up unanswered: it goes with the connection.
            self._hand_over(self._hang_up)
            raise

    def _wait(self, done: Pending) -> Any:
        self._waiting = done
        if self._ended:
            raise BusClosed("the exporter ends")
        try:
            return done.wait(self._patience)
        finally:
            self._waiting = None
            del done  # an error holds this frame, which must not hold the error

    def _hand_over(self, job: Callable[[Pending], None]) -> Pending:
        """Let the thread of the bus do something that fulfils a future, then or later."""
        done = Pending()

        def run(*_: object) -> bool:  # PyGObject 3.50 gives it user data, 3.58 none
            try:
                job(done)
            except Exception as error:  # the thread goes on: the one who waits deals with it
                done.settle(error)
            return bool(GLib.SOURCE_REMOVE)

        source = GLib.Idle(priority=GLib.PRIORITY_DEFAULT)
        source.set_callback(run)
        source.attach(self._context)
        return done

    def _serve(self) -> None:
        self._context.push_thread_default()
        while not self._ended:
            self._context.iteration(True)
        if self._connection is not None:
            with suppress(GLib.Error):
                self._connection.close_sync(None)
        while self._context.iteration(False):
            pass  # what is left in there would keep it
        self._context.pop_thread_default()

    def _connect(self, done: Pending) -> None:
        is_new = self._connection is None or self._connection.is_closed()
        if is_new:
            self._connection = self._connected()
        done.settle(is_new)

    def _connected(self) -> Any:
        try:
            bus = pydbus.connect(self._address)
        except GLib.Error as error:
            raise _opening_error(error) from None
        except ValueError as error:  # bytes that are not UTF-8
            raise BadAddress(str(error)) from None
        connection, bus.con = bus.con, None  # they hold each other, and a descriptor
        # pydbus leaves an attribute on it, for which PyGObject has GDBus's own thread wait for
        # the interpreter, under a lock, whenever a second reference comes or goes. Whoever ends
        # a connection in the interpreter waits for that lock. So there are always two, up to the
        # time when GDBus is done with it.
        connection.second = GObject.Value(Gio.DBusConnection, connection)
        connection.set_exit_on_close(False)
        connection.connect("closed", self._on_closed)
        self._listen(connection)
        return connection

    def _listen(self, connection: Any) -> None:
        properties = (_SYSTEMD, _PROPERTIES, "PropertiesChanged", None, _UNIT)
        connection.signal_subscribe(*properties, _ALL_SIGNALS, self._news.change)
        for name in ("UnitNew", "UnitRemoved", "Reloading"):
            told = (_SYSTEMD, MANAGER, name, MANAGER_PATH, None)
            connection.signal_subscribe(*told, _ALL_SIGNALS, self._news.manager)
        owner = (_DBUS, _DBUS, "NameOwnerChanged", _DBUS_PATH, _SYSTEMD)
        connection.signal_subscribe(*owner, _ALL_SIGNALS, self._news.owner)

    def _hang_up(self, _done: Pending) -> None:
        if self._connection is not None:
            self._connection.close(None, None)
            self._connection = None
            self._signals.give_up()

    def _on_closed(self, connection: Any, _vanished: bool, _error: GLib.Error | None) -> None:
        connection.second.unset()
        if connection is self._connection:
            self._connection = None
            self._signals.lose()


class _Reads:
    """Reads of properties. Lives in the thread of the bus."""

    def __init__(self, connection: Any, wanted: Sequence[Property], done: Pending) -> None:
        self._connection = connection
        self._wanted = wanted
        self._done = done
        self._values: list[Any] = [None] * len(wanted)
        self._window = Window(len(wanted))

    def go_on(self, _data: object = None) -> bool:
        if not self._done.done():
            self._window.fill(self._send)
        if self._window.is_done:
            self._done.settle(self._values)
        return bool(GLib.SOURCE_REMOVE)

    def _send(self, number: int) -> None:
        path, interface, name = self._wanted[number]
        target = (_SYSTEMD, path, _PROPERTIES, "Get")
        values = _arguments(interface, name)
        self._connection.call(
            *target, values, _PROPERTY, _FLAGS, _NO_TIMEOUT, None, self._receive, number
        )

    def _receive(self, connection: Any, result: Gio.AsyncResult, number: int) -> None:
        try:
            reply = connection.call_finish(result)
        except GLib.Error as error:
            self._fail(number, _call_error(error))
        else:
            self._values[number] = reply.unpack()[0]
            self._finish()

    def _finish(self) -> None:
        self._done.come += 1
        self._window.finish()
        self.go_on()

    def _fail(self, number: int, error: BusError) -> None:
        if error.name in _GONE:
            self._finish()
        elif error.name != _LIMITS_EXCEEDED:
            self._done.settle(error)
        elif not self._window.refuse(number):
            pause = GLib.Timeout(_PAUSE)
            pause.set_callback(self.go_on)
            pause.attach(GLib.MainContext.get_thread_default())


def _read(wanted: Sequence[Property], connection: Any, done: Pending) -> None:
    _Reads(connection, wanted, done).go_on()


def _receive(connection: Any, result: Gio.AsyncResult, done: Pending) -> None:
    try:
        done.settle(connection.call_finish(result))
    except GLib.Error as error:
        done.settle(_call_error(error))


def _listed(column: Callable[[int], Any]) -> Listed:
    """Take the needed ones of ten columns, in half the time of ``unpack()``."""
    return Listed(
        column(0).get_string(),
        sys.intern(column(2).get_string()),
        sys.intern(column(3).get_string()),
        sys.intern(column(4).get_string()),
        column(7).get_uint32() != 0,
    )


@cache
def _arguments(interface: str, name: str) -> GLib.Variant:
    return GLib.Variant("(ss)", (interface, name))


def _opening_error(error: GLib.Error) -> BusError:
    if error.matches(Gio.io_error_quark(), Gio.IOErrorEnum.INVALID_ARGUMENT):
        return BadAddress(error.message)
    return BusError(error.message)


def _call_error(error: GLib.Error) -> BusError:
    if error.matches(Gio.io_error_quark(), Gio.IOErrorEnum.CLOSED):
        return BusClosed(error.message)
    name = Gio.DBusError.get_remote_error(error) or ""
    return BusError(error.message.removeprefix(f"GDBus.Error:{name}: "), name)
