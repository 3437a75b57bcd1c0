"""nginx's settings: files, WebDAV and nchan in one server."""

from pathlib import Path

_CONF = """
{modules}
worker_processes {workers};
daemon off;
pid {folder}/pid;
error_log {folder}/error.log error;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  sendfile {sendfile};
  tcp_nopush on;
  keepalive_requests 100000000;
  client_max_body_size 0;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  {settings}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /readyz {{ return 200; }}
    location /files/ {{ root {folder}; dav_methods PUT; create_full_put_path on; }}
    {locations}
  }}
}}
"""

_NCHAN = """
    location ~ ^/publish/(\\w+)$ {
      nchan_publisher;
      nchan_channel_id $1;
      nchan_message_buffer_length 5000;
      nchan_message_timeout 1m;
    }
    location ~ ^/live/(\\w+)$ {
      nchan_subscriber eventsource;
      nchan_channel_id $1;
      nchan_subscriber_first_message newest;
    }
"""

MODULES = Path("/usr/lib/nginx/modules")


def write_conf(folder: Path, port: int, *, workers: int = 1, sendfile: bool = False, nchan: bool = False) -> Path:
    """Write the settings, and return their file."""
    modules = f"load_module {MODULES}/ngx_nchan_module.so;" if nchan else ""
    conf = folder / "nginx.conf"
    (folder / "files").mkdir(mode=0o777, exist_ok=True)
    for path in (folder, folder / "files"):  # its workers are another user's
        path.chmod(0o777)
    conf.write_text(
        _CONF.format(
            modules=modules,
            workers=workers,
            folder=folder,
            sendfile="on" if sendfile else "off",
            port=port,
            settings="nchan_shared_memory_size 256m;" if nchan else "",
            locations=_NCHAN if nchan else "",
        )
    )
    return conf
