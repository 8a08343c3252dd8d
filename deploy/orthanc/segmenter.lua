-- Sends chest X-rays that come in to the node, and nothing else: /etc/orthanc/segmenter.lua (docs/use/pacs-setup.md).
-- The node's own results stay here: they are known by their sender, and by their header when they come from elsewhere.

local NODE = 'segmenter' -- its entry in DicomModalities
local NODE_AET = 'PTXSEG' -- the AE title with which it sends (send.ae_title)

local CLASSES = {
  ['1.2.840.10008.5.1.4.1.1.1'] = true, -- CR
  ['1.2.840.10008.5.1.4.1.1.1.1'] = true, -- DX, for presentation
  ['1.2.840.10008.5.1.4.1.1.7'] = true, -- Secondary Capture
}
local MODALITIES = { CR = true, DX = true, RG = true, OT = true, [''] = true }
-- Words for the chest in lower case, as consoles of several languages write them.
local CHEST = { 'chest', 'thorax', 'thorac', 'torax', 'tórax', 'torac', 'lung', 'poumon', 'klatka', 'göğüs', '胸' }

local function contains(text, words)
  for _, word in ipairs(words) do
    if string.find(text, word, 1, true) then return true end
  end
  return false
end

local function is_result(tags)
  return tags['Manufacturer'] == 'Segmenter Worker' or tags['ManufacturerModelName'] == 'Pneumothorax Segmenter'
    or string.find(tags['SeriesDescription'] or '', 'Pneumothorax Segmenter', 1, true) == 1
end

local function is_chest(tags)
  local part = string.lower(tags['BodyPartExamined'] or '')
  if part ~= '' then return contains(part, CHEST) end
  local described = string.lower(table.concat({
    tags['StudyDescription'] or '', tags['SeriesDescription'] or '', tags['ProtocolName'] or '',
    tags['RequestedProcedureDescription'] or '',
  }, ' '))
  return contains(described, CHEST)
end

function OnStoredInstance(instanceId, tags, metadata, origin)
  if origin['RequestOrigin'] == 'Lua' or origin['RemoteAet'] == NODE_AET then return end
  if not CLASSES[tags['SOPClassUID'] or ''] or not MODALITIES[tags['Modality'] or ''] then return end
  if is_result(tags) or not is_chest(tags) then return end
  SendToModality(instanceId, NODE)
end
