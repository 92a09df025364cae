"""Says what Python's email package makes of each mail: a JSON object a line, for compare_test.go.

    python3 python.py DIRECTORY      the folder that SLUICE_TESTDATA names
"""
import email, email.header, email.policy, email.utils, json, os, sys, tarfile


def mails(directory):
    with tarfile.open(os.path.join(directory, "corpus", "train.tar.gz")) as tape:
        for member in tape:
            if member.isfile():
                yield member.name, tape.extractfile(member).read()
    for path, _, names in sorted(os.walk(os.path.join(directory, "mime"))):
        for name in sorted(names):
            full = os.path.join(path, name)
            with open(full, "rb") as f:
                yield os.path.relpath(full, directory), f.read()


def text(part):
    raw = part.get_payload(decode=True) or b""
    charset = part.get_content_charset() or "utf-8"
    if charset in ("us-ascii", "ascii", "iso-8859-1", "default", "unknown-8bit"):
        charset = "utf-8"
    try:
        return raw.decode(charset)
    except (LookupError, UnicodeDecodeError):
        return raw.decode("cp1252", "replace")


def subject(m):
    value = m.get("subject")
    if value is None:
        return ""
    out = ""
    try:
        for chunk, charset in email.header.decode_header(value):
            if isinstance(chunk, bytes):
                try:
                    chunk = chunk.decode(charset or "utf-8", "replace")
                except LookupError:
                    chunk = chunk.decode("cp1252", "replace")
            out += chunk
    except Exception as e:
        return "error: %s" % e
    return out


def date(m):
    try:
        t = email.utils.parsedate_tz(str(m.get("date") or ""))
        return int(email.utils.mktime_tz(t)) if t else None
    except Exception:
        return None


for name, raw in mails(sys.argv[1]):
    try:
        m = email.message_from_bytes(raw, policy=email.policy.compat32)
        plain, html, files, types = [], [], [], []
        for part in m.walk():
            kind = part.get_content_type()
            types.append(kind)
            filename = part.get_filename()
            if filename:
                files.append(email.utils.collapse_rfc2231_value(filename))
            if part.is_multipart() or part.get_content_disposition() == "attachment":
                continue
            if kind == "text/plain":
                plain.append(text(part))
            elif kind == "text/html":
                html.append(text(part))
        says = {"name": name, "subject": subject(m), "date": date(m), "types": types, "files": files, "plain": "\n".join(plain), "html": "\n".join(html)}
        says["from"] = [a for _, a in email.utils.getaddresses([str(x) for x in m.get_all("from", [])])]
    except Exception as e:
        says = {"name": name, "error": repr(e)}
    print(json.dumps(says))
