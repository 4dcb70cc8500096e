"""Small archives in the formats of the published ones, and a server on this machine for them."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from toolkit.data.downloads import RemoteFile

CIFAR_ROWS = 12  # of each file
CALIFORNIA_ROWS = 50
SIGNS_A_CLASS = 2


class Server:
    """Serves `files` by name. `faults` are used up one a request: "cut", a status, or None."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.files: dict[str, bytes] = {}
        self.faults: list[str | int | None] = []
        self.asked: list[str] = []

    def publish(self, name: str, content: bytes) -> RemoteFile:
        self.files[name] = content
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        return RemoteFile(name=name, url=f"{self.url}/{name}", digest=digest)


@contextmanager
def serving() -> Iterator[Server]:
    """A server on a free port of the loopback, in a thread of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append(self.path)
            fault = server.faults.pop(0) if server.faults else None
            content = server.files.get(self.path.rpartition("/")[2])
            if isinstance(fault, int) or content is None:
                self.send_error(fault if isinstance(fault, int) else 404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if fault == "cut" else content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server = Server(http.server_port)
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


def tar_gz(files: Mapping[str, bytes]) -> bytes:
    """The same bytes for the same files, as `zipped` gives."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(stream.getvalue(), 1, mtime=0)


def zipped(files: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return stream.getvalue()


def cifar_files(classes: int) -> dict[str, bytes]:
    """Files as in the binary archive of CIFAR-10 or CIFAR-100, and one beside them."""
    rng = np.random.default_rng(classes)
    if classes == 10:
        folder, labels = "cifar-10-batches-bin", 1
        names = [*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]
    else:
        folder, labels = "cifar-100-binary", 2
        names = ["train.bin", "test.bin"]
    files = {f"{folder}/readme.html": b"<html>"}
    for name in names:
        records = rng.integers(0, 256, (CIFAR_ROWS, labels + 3072), dtype=np.uint8)
        records[:, labels - 1] %= classes
        files[f"{folder}/{name}"] = records.tobytes()
    return files


def california_files() -> dict[str, bytes]:
    """Longitude, latitude, age, rooms, bedrooms, population, households, income, price."""
    rng = np.random.default_rng(0)
    low = (-124, 32, 1, 500, 100, 300, 80, 0.5, 15_000)
    high = (-114, 42, 52, 6000, 1200, 3000, 1100, 15, 500_000)
    rows = rng.uniform(low, high, (CALIFORNIA_ROWS, 9))
    text = "".join(",".join(f"{value:.6f}" for value in row) + "\n" for row in rows)
    return {
        "CaliforniaHousing/cal_housing.domain": b"longitude: continuous.\n",
        "CaliforniaHousing/cal_housing.data": text.encode(),
    }


def ppm(image: np.ndarray) -> bytes:
    """An image [H, W, 3] uint8, red first, as a binary portable pixmap."""
    height, width, _ = image.shape
    return f"P6\n{width} {height}\n255\n".encode() + image.tobytes()


def sign_files() -> dict[str, dict[str, bytes]]:
    """The contents of the three archives of the traffic signs, by the archive's name."""
    rng = np.random.default_rng(0)
    head = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2"

    def sign() -> tuple[bytes, str]:
        width, height = (int(extent) for extent in rng.integers(15, 40, 2))
        region = f"{width};{height};2;3;{width - 4};{height - 1}"
        return ppm(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)), region

    training = {"GTSRB/Readme-Images.txt": b"read me"}
    for label in range(43):
        folder = f"GTSRB/Final_Training/Images/{label:05d}"
        lines = [f"{head};ClassId"]
        for number in range(SIGNS_A_CLASS):
            name = f"00000_{number:05d}.ppm"
            training[f"{folder}/{name}"], region = sign()
            lines.append(f"{name};{region};{label}")
        training[f"{folder}/GT-{label:05d}.csv"] = "\r\n".join(lines).encode()
    test, lines = {}, [f"{head};ClassId"]
    for number in range(43):
        name = f"{number:05d}.ppm"
        test[f"GTSRB/Final_Test/Images/{name}"], region = sign()
        lines.append(f"{name};{region};{(number * 7) % 43}")
    return {
        "GTSRB_Final_Training_Images.zip": training,
        "GTSRB_Final_Test_Images.zip": {
            "GTSRB/Final_Test/Images/GT-final_test.test.csv": b"",
            **test,
        },
        "GTSRB_Final_Test_GT.zip": {"GT-final_test.csv": "\r\n".join(lines).encode()},
    }
