// The viewer's files and the PACS behind one address, as a hospital's web server would offer them: no CORS needed.
import { createReadStream, existsSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';

const TYPES = {
  '.css': 'text/css', '.html': 'text/html', '.js': 'text/javascript', '.json': 'application/json', '.png': 'image/png',
  '.svg': 'image/svg+xml', '.wasm': 'application/wasm', '.ico': 'image/x-icon',
};
const CONFIG = {
  routerBasename: null,
  extensions: [],
  modes: [],
  showStudyList: true,
  investigationalUseDialog: { option: 'never' },
  maxNumberOfWebWorkers: 1,
  showLoadingIndicator: true,
  strictZSpacingForVolumeViewport: true,
  defaultDataSourceName: 'pacs',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
    sourceName: 'pacs',
    configuration: {
      friendlyName: 'PACS', name: 'pacs',
      wadoUriRoot: '/wado', qidoRoot: '/dicom-web', wadoRoot: '/dicom-web',
      qidoSupportsIncludeField: false, supportsReject: false, supportsFuzzyMatching: false, supportsWildcard: true,
      imageRendering: 'wadors', thumbnailRendering: 'wadors', enableStudyLazyLoad: true, omitQuotationForMultipartRequest: true,
      dicomUploadEnabled: false, bulkDataURI: { enabled: true, relativeResolution: 'studies' },
    },
  }],
};

/** Serve `dist` (a built OHIF) and hand /dicom-web to `pacs` (its HTTP address) on a free port of loopback. */
export function serve(dist, pacs) {
  const server = http.createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://site');
    if (pathname.startsWith('/dicom-web')) return handOn(request, response, pacs);
    if (pathname === '/app-config.js') {
      response.setHeader('Content-Type', 'text/javascript');
      return response.end(`window.config = ${JSON.stringify(CONFIG)};`);
    }
    // What is no file is a page of the application (/viewer?StudyInstanceUIDs=...).
    const wanted = path.join(dist, path.normalize(pathname));
    const file = pathname !== '/' && existsSync(wanted) ? wanted : path.join(dist, 'index.html');
    response.setHeader('Content-Type', TYPES[path.extname(file)] ?? 'application/octet-stream');
    response.setHeader('Cache-Control', 'max-age=3600');
    createReadStream(file).on('error', () => response.destroy()).pipe(response);
  });
  return new Promise(resolve => server.listen(0, '127.0.0.1', () => resolve(server)));
}

function handOn(request, response, pacs) {
  // Orthanc writes the address of bulk data from the Host header: it must be ours.
  const onward = http.request(pacs + request.url, { method: request.method, headers: request.headers }, answer => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  onward.on('error', () => response.destroy());
  request.pipe(onward);
}
