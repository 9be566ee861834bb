"""Archives as other people make them."""

import io
import tarfile


def tar(files: dict[str, bytes]) -> bytes:
    """Returns a tar of files, {name: content}."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()
