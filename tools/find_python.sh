#!/bin/sh
# Prints the newest Python from 3.11 to 3.13 that really runs here, or the one version asked for
# (tools/find_python.sh 3.11). pyenv's shims answer for versions that are not active: the versions
# themselves are tried as well.
for version in ${1:-3.13 3.12 3.11}; do
    for python in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version".*/bin/python; do
        if "$python" -c "import ensurepip, ssl, venv, sys; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" \
            >/dev/null 2>&1; then
            command -v "$python"
            exit 0
        fi
    done
done
echo "spp_jax needs Python ${1:-3.11, 3.12 or 3.13}, and none was found that runs" >&2
exit 1
