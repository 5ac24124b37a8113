"""S3-compatible servers over a folder: versitygw, and MinIO, which many installations still run."""

import datetime
import hashlib
import hmac
import http.client
import json
import secrets
from pathlib import Path

import cache
import service
import toolchain

VERSITYGW_VERSION = "1.8.0"
MINIO_VERSION = "0.0.0-20260212201848-7aac2a2c5b7c"  # the last commit before its archive
REGION = "us-east-1"
BUCKET = "clearpane"
TIMEOUT_S = 10


def fetch_versitygw() -> Path:
    def build(folder: Path) -> None:
        stamp = ("-ldflags", f"-X main.Version={VERSITYGW_VERSION}")
        toolchain.go_install(f"github.com/versity/versitygw/cmd/versitygw@v{VERSITYGW_VERSION}", folder, *stamp)

    return cache.entry(f"versitygw-{VERSITYGW_VERSION}", build)


def fetch_minio() -> Path:
    return cache.entry(f"minio-{MINIO_VERSION}", lambda folder: toolchain.go_install(f"github.com/minio/minio@v{MINIO_VERSION}", folder))


def credentials(folder: Path) -> tuple[str, str]:
    """Access key and secret: made once per folder."""
    file = folder / "credentials.json"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(json.dumps([f"test-{secrets.token_hex(6)}", secrets.token_hex(20)]))
    access, secret = json.loads(file.read_text())
    return access, secret


def command_versitygw(folder: Path) -> tuple[list[str], dict[str, str]]:
    access, secret = credentials(folder)
    (folder / "data").mkdir(exist_ok=True)
    argv = [str(fetch_versitygw() / "versitygw"), "--port", service.address(folder), "posix", str(folder / "data")]
    return argv, {"ROOT_ACCESS_KEY": access, "ROOT_SECRET_KEY": secret}


def command_minio(folder: Path) -> tuple[list[str], dict[str, str]]:
    access, secret = credentials(folder)
    argv = [str(fetch_minio() / "minio"), "server", "--quiet", "--address", service.address(folder), str(folder / "data")]
    return argv, {"MINIO_ROOT_USER": access, "MINIO_ROOT_PASSWORD": secret, "MINIO_BROWSER": "off", "MINIO_UPDATE": "off"}


def answers(folder: Path) -> bool:
    """Whether the bucket is there; makes it where it is not."""
    try:
        return _put_bucket(folder) in {200, 409}
    except (OSError, http.client.HTTPException):
        return False


def environment(folder: Path) -> dict[str, str]:
    access, secret = credentials(folder)
    endpoint = f"http://{service.address(folder)}"
    return {
        "AWS_ACCESS_KEY_ID": access,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_ALLOW_HTTP": "true",
    }


def _put_bucket(folder: Path) -> int:
    """The status of a signed `PUT /bucket` (AWS signature version 4)."""
    access, secret = credentials(folder)
    host = service.address(folder)
    moment = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(b"").hexdigest()
    signed = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": moment}
    names = ";".join(signed)
    canonical = "\n".join(["PUT", f"/{BUCKET}", "", *(f"{name}:{value}" for name, value in signed.items()), "", names, digest])
    scope = f"{moment[:8]}/{REGION}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = b"AWS4" + secret.encode()
    for part in (*scope.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    authorization = f"AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
    connection = http.client.HTTPConnection(host, timeout=TIMEOUT_S)
    try:
        connection.request("PUT", f"/{BUCKET}", headers={**signed, "authorization": authorization})
        return connection.getresponse().status
    finally:
        connection.close()


VERSITYGW = service.Service("versitygw", f"versitygw {VERSITYGW_VERSION}", fetch_versitygw, command_versitygw, answers)
MINIO = service.Service("minio", f"MinIO {MINIO_VERSION}", fetch_minio, command_minio, answers)
