# Builds an image of the server: docker build --tag txbits .
# docs/howto/containers.md says how to run it.

FROM debian:trixie-slim AS build
# The versions are those of Debian's stable release, with its security updates.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        ca-certificates gcc libc6-dev libkrb5-dev python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/txbits
WORKDIR /src
COPY . .
# The second command writes the list of plugins, which the server's user cannot.
RUN /opt/txbits/bin/pip install --no-cache-dir '.[jwt,kerberos,s3]' \
    && /opt/txbits/bin/twistd --help >/dev/null

FROM debian:trixie-slim
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        ca-certificates libgssapi-krb5-2 python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --no-log-init --uid 10001 --user-group txbits \
    && install --directory --owner=txbits --group=txbits /uploads
COPY --from=build /opt/txbits /opt/txbits
ENV PATH=/opt/txbits/bin:$PATH PYTHONDONTWRITEBYTECODE=1
# Its number, so that an orchestrator sees that it is not root.
USER 10001:10001
WORKDIR /uploads
VOLUME /uploads
EXPOSE 8080
# Any answer will do: a server that authenticates refuses this Ping.
HEALTHCHECK --start-period=60s CMD ["python3", "-c", "from http.client import HTTPConnection; c = HTTPConnection('127.0.0.1', 8080, timeout=10); c.request('BITS_POST', '/', headers={'BITS-Packet-Type': 'Ping', 'Content-Length': '0'}); c.getresponse()"]
# Not a shell, so that SIGTERM and SIGHUP reach the server. Without a pid file, nothing is
# left that could stop the next start.
ENTRYPOINT ["twistd", "-n", "--pidfile=", "txbits"]
CMD ["--backend", "disk:/uploads"]
