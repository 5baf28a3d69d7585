import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { printableText } from '#tsnbd/protocol/text.js';
import { TransportError } from '#tsnbd/transport/errors.js';
import { formatNbdUri, isNbdUri, type NbdTarget, parseNbdUri } from '#tsnbd/transport/uri.js';

const tcp = (exportName = '', host = 'localhost', port = 10809) => ({
  address: { kind: 'tcp', host, port },
  exportName,
});
const unix = (exportName = '', path = '/run/x') => ({ address: { kind: 'unix', path }, exportName });

describe('an NBD URI', () => {
  test.each([
    // The specification's own (uri.md, 'NBD URI export name').
    ['nbd://example.com/disk', tcp('disk', 'example.com')],
    ['nbd+unix:///disk?socket=sock', unix('disk', 'sock')],
    ['nbd://example.com/', tcp('', 'example.com')],
    ['nbd://example.com', tcp('', 'example.com')],
    ['nbd://example.com//disk', tcp('/disk', 'example.com')],
    ['nbd://example.com/hello%20world', tcp('hello world', 'example.com')],
    ['nbd://example.com:10809/export', tcp('export', 'example.com')],
    // Hosts and ports.
    ['nbd://192.0.2.7:4000', tcp('', '192.0.2.7', 4000)],
    ['nbd://192.0.2.7:/x', tcp('x', '192.0.2.7')],
    ['nbd://[::1]', tcp('', '::1')],
    ['nbd://[::1]:65535/x', tcp('x', '::1', 65535)],
    ['nbd://[fe80::1%25eth0]:1/', tcp('', 'fe80::1%eth0', 1)],
    ['nbd://', tcp()],
    ['nbd:///x', tcp('x')],
    ['nbd://:4000/x', tcp('x', 'localhost', 4000)],
    ['NBD://Example.com/X', tcp('X', 'Example.com')],
    ['nbd://ex%61mple/x', tcp('x', 'example')],
    // Names.
    ['nbd://h///', tcp('//', 'h')],
    ['nbd://h/a/b:c@d&e;f=g+h', tcp('a/b:c@d&e;f=g+h', 'h')],
    ['nbd://h/gr%C3%B6%c3%9fe', tcp('größe', 'h')],
    ['nbd://h/größe', tcp('größe', 'h')],
    ['nbd://h/%2525%2F%3F%23', tcp('%25/?#', 'h')],
    ['nbd://h/x?', tcp('x', 'h')],
    ['nbd://h/x?&;', tcp('x', 'h')],
    // Sockets.
    ['nbd+unix:///?socket=/run/x', unix()],
    ['nbd+unix://?socket=/run/x', unix()],
    ['NBD+UNIX:///?socket=/run/x', unix()],
    ['nbd+unix:///a%20b?socket=%2Frun%2Fx', unix('a b')],
    ['nbd+unix:///?&socket=/run/a%26b%3Bc=d?e;', unix('', '/run/a&b;c=d?e')],
    // QEMU's earlier forms.
    ['nbd:192.0.2.7:4000', tcp('', '192.0.2.7', 4000)],
    ['nbd:[::1]:4000:exportname=a:b%20', tcp('a:b%20', '::1', 4000)],
    ['nbd:h:4000:exportname=', tcp('', 'h', 4000)],
    ['nbd:unix:/run/x', unix()],
    ['nbd:unix:/run/a:b:exportname=größe x', unix('größe x', '/run/a:b')],
  ])('%s', (text, target) => {
    expect(isNbdUri(text)).toBe(true);
    expect(parseNbdUri(text)).toEqual(target);
  });

  test('holds the longest name of an export and the longest path of a socket', () => {
    const name = '%C3%A4'.repeat(2048);
    expect(parseNbdUri(`nbd://h/${name}`)).toEqual(tcp('ä'.repeat(2048), 'h'));
    expect(whyBad(`nbd://h/${name}x`)).toBe('9: the name of the export has 4097 bytes, NBD allows 4096');
    const path = `/${'x'.repeat(106)}`;
    expect(parseNbdUri(`nbd+unix:///?socket=${path}`)).toEqual(unix('', path));
    expect(whyBad(`nbd+unix:///?socket=${path}x`)).toMatch(/^21: the path of a unix socket may have 107 bytes/);
  });
});

describe('a bad NBD URI tells where it is bad, and why', () => {
  test.each([
    ['nbds://h/x', "1: 'nbds' asks for TLS, which is not supported yet"],
    ['nbds+unix:///?socket=x', "1: 'nbds+unix' asks for TLS, which is not supported yet"],
    ['nbd+vsock://2/', "1: 'nbd+vsock' leads to a socket of a virtual machine (AF_VSOCK), which is not supported"],
    ['nbds+vsock://2/', "1: 'nbds+vsock' leads to a socket of a virtual machine (AF_VSOCK), which is not supported"],
    ['nbd+ssh://h/', "1: the scheme 'nbd+ssh' is unknown; there are nbd and nbd+unix"],
    ['nbd+unix:x', '10: two slashes have to follow the scheme'],
    ['nbd:/h/x', '5: there should be nbd://HOST, or HOST:PORT or unix:PATH'],
    ['nbd:h', '5: there should be nbd://HOST, or HOST:PORT or unix:PATH'],
    ['nbd:', '5: there should be nbd://HOST, or HOST:PORT or unix:PATH'],
    ['nbd:h:x', "7: 'x' is not a port (1 to 65535)"],
    ['nbd:h:1:exportname=a\0', '20: the name of an export has at most 4096 bytes, and no NUL character'],
    ['nbd:unix:', '10: the path of a unix socket may not be empty or hold a NUL character'],
    ['nbd://h:0/', "9: '0' is not a port (1 to 65535)"],
    ['nbd://h:65536/', "9: '65536' is not a port (1 to 65535)"],
    ['nbd://h:+1/', "9: '+1' is not a port (1 to 65535)"],
    ['nbd://h:nbd/', "9: 'nbd' is not a port (1 to 65535)"],
    ['nbd://::1/x', '7: an IPv6 address stands in brackets: [::1]'],
    ['nbd://[::1/x', '7: the bracket is not closed'],
    ['nbd://[::1]x/', '12: only a port can follow an IPv6 address'],
    ['nbd://[127.0.0.1]/', "8: '127.0.0.1' is not an IPv6 address"],
    ['nbd://[]/', "8: '' is not an IPv6 address"],
    ['nbd://a%00b/', '7: the name of a host cannot hold a NUL character'],
    ['nbd://user@h/x', '7: a user is for TLS, which is not supported yet'],
    ['nbd://h/a b', '10: such a character is written as %20'],
    ['nbd://h/a#b', '10: such a character is written as %23'],
    ['nbd://h/a\nb', '10: such a character is written as %0A'],
    ['nbd://h/a%2', '10: two hexadecimal digits have to follow a percent sign'],
    ['nbd://h/%zz', '9: two hexadecimal digits have to follow a percent sign'],
    ['nbd://h/x%FF', '10: the bytes that percent signs stand for are not UTF-8'],
    ['nbd://h/x%00', '9: the name of an export cannot hold a NUL character'],
    ['nbd://h/?socket=/run/x', "17: a socket is for nbd+unix; 'nbd' leads to a host"],
    ['nbd+unix:///x', '12: nbd+unix needs the path of a socket: nbd+unix:///?socket=PATH'],
    ['nbd+unix:///?socket', "14: 'socket' needs a value"],
    ['nbd+unix:///?socket=', '21: the path of a unix socket may not be empty or hold a NUL character'],
    ['nbd+unix:///?socket=%00', '21: the name of an abstract socket has 1 to 107 bytes, this one has 0'],
    [
      `nbd+unix:///?socket=%00${'x'.repeat(108)}`,
      '21: the name of an abstract socket has 1 to 107 bytes, this one has 108',
    ],
    ['nbd+unix:///?socket=/x%00', '21: the path of a unix socket may not be empty or hold a NUL character'],
    ['nbd+unix:///?socket=a&socket=b', "23: 'socket' is there twice"],
    ['nbd+unix://h/?socket=x', '12: there can be no host with nbd+unix: write nbd+unix:///'],
    ['nbd://h/?x-foo=1', "10: there is no parameter 'x-foo', only socket"],
    ['nbd://h/?Socket=1', "10: there is no parameter 'Socket', only socket"],
    ['nbd://h/?tls-verify-peer=0', "10: 'tls-verify-peer' is for TLS, which is not supported yet"],
    ['nbd+unix:///?socket=x;tls-psk-file=y', "23: 'tls-psk-file' is for TLS, which is not supported yet"],
  ])('%j', (text, why) => {
    expect(isNbdUri(text)).toBe(true);
    expect(whyBad(text)).toBe(why);
  });

  test('whatever it is: it is read, or the error is of this room and of one line', () => {
    const part = fc.oneof(
      fc.constantFrom(
        'nbd',
        '+unix',
        '://',
        ':',
        '/',
        '?',
        '&',
        ';',
        'socket=',
        '[',
        ']',
        '%',
        '%41',
        '%00',
        '@',
        '::1',
      ),
      fc.string(),
      fc.string({ unit: 'binary' }),
    );
    fc.assert(
      fc.property(fc.array(part, { maxLength: 12 }), (parts) => {
        const text = `nbd${parts.join('')}`;
        try {
          const { exportName, address } = parseNbdUri(text);
          // The first of a socket's name tells that it is no path.
          expect(exportName + (address.kind === 'tcp' ? address.host : address.path.slice(1))).not.toContain('\0');
        } catch (error) {
          expect(error).toBeInstanceOf(TransportError);
          expect(String(error)).toMatch(/^.+$/);
        }
      }),
      { seed: 11, numRuns: 20_000 },
    );
  });

  test('every export name, host and socket comes back as it was', () => {
    const text = fc.string({ unit: 'binary', maxLength: 40 }).filter((each) => !each.includes('\0'));
    fc.assert(
      fc.property(text, text, (name, path) => {
        const [encodedName, encodedPath] = [name, path].map((each) => encodeURIComponent(each));
        expect(parseNbdUri(`nbd://h/${encodedName}`)).toEqual(tcp(name, 'h'));
        if (path === '' || Buffer.byteLength(path) > 107) return;
        expect(parseNbdUri(`nbd+unix:///${encodedName}?socket=${encodedPath}`)).toEqual(unix(name, path));
      }),
      { seed: 11, numRuns: 2_000 },
    );
  });
});

describe('a target is written as a URI', () => {
  test.each([
    [tcp(), 'nbd://localhost/'],
    [tcp('a b/c', 'h', 4000), 'nbd://h:4000/a%20b/c'],
    [tcp('/x', 'fe80::1%eth0', 1), 'nbd://[fe80::1%25eth0]:1//x'],
    [unix('größe?', '/run/a&b'), 'nbd+unix:///gr%C3%B6%C3%9Fe%3F?socket=/run/a%26b'],
    [unix(), 'nbd+unix:///?socket=/run/x'],
    [unix('', '\0vm 1'), 'nbd+unix:///?socket=%00vm%201'],
  ] as const)('%j: %s', (target, text) => {
    expect(formatNbdUri(target as NbdTarget)).toBe(text);
    expect(parseNbdUri(text)).toEqual(target);
  });

  test('which leads there again', () => {
    const text = fc.string({ unit: 'binary', maxLength: 30 }).filter((each) => !each.includes('\0'));
    fc.assert(
      fc.property(text, text, fc.integer({ min: 1, max: 65_535 }), (name, path, port) => {
        const targets = [tcp(name, '::1', port), tcp(name, 'h', port), ...(path === '' ? [] : [unix(name, path)])];
        for (const target of targets as NbdTarget[]) {
          if (Buffer.byteLength(path) <= 107) expect(parseNbdUri(formatNbdUri(target))).toEqual(target);
        }
      }),
      { seed: 11, numRuns: 2_000 },
    );
  });
});

test('hosts and files are no NBD URIs', () => {
  for (const text of ['nbd', 'nbd0', 'h:1', '::1', './nbd:x', '/nbd://x', 'nbd/x:y', 'http://h/', 'nbdx://h']) {
    expect(isNbdUri(text)).toBe(false);
  }
});

function whyBad(text: string): string {
  try {
    return `no error: ${JSON.stringify(parseNbdUri(text))}`;
  } catch (error) {
    if (!(error instanceof TransportError) || error.code !== 'address') throw error;
    const start = `'${printableText(text)}' is bad at character `;
    return error.message.startsWith(start) ? error.message.slice(start.length) : error.message;
  }
}
