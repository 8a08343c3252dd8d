"""What consoles in many countries write of a chest film, by the view that they mean."""

LATERAL = """
Chest Lat. | CHEST LLAT | W Chest Lat | CHEST_L_LAT | CXR Left Lateral | Chest LATER | ChestLat | CHESTLAT
chest_lateral_erect | CHEST.LAT
Chest L LAT | CHEST LL | Chest LT LAT | X-TABLE LAT CHEST | Cross-table chest | CHEST LAT LEFT | Chest Lat1
ＣＨＥＳＴ　ＬＡＴ
THORAX SEITL. | Thorax seitl. stehend | Thorax seitlich | Thorax 2. Ebene | Thorax 2.Ebene li | Thorax Seitenaufnahme
Thorax Seite
THORAX SEITLICH LI ANL. | Thorax li anliegend | Thorax zweite Ebene | ThoraxSeitlich | Thorax dextro-sinistral
Thorax Seitenbild
Thorax Profil G | Thorax de profil | POUMONS PROFIL | Thorax profil gauche | Thorax latéral | Thorax lat?ral
Thorax lat\ufffdral | Thorax prof.
TORAX PERFIL | Torax Perfil E | Torax L | Torax (L) | THORAX_L | THORAX L. | Tórax lateral izquierdo | TÓRAX LAT IZQ
Torax laterolateral | Tórax perf. | TORAX_PERFIL | RX TORAX LAT
Torace L-L | Torace laterale | Rx Torace Lat | Torace LL | Torace L.L. | Torace latero-laterale | TORACE IN LL
Torace profilo | Torace sx
Thorax dwars | Thorax lateraal | THORAX DWARSE OPNAME | Thorax zijdelings | Thorax zijaanzicht | Thorax van opzij
Thorax zij
Klatka piersiowa bok | Klatka piersiowa boczne | Kl. piersiowa - boczna | KLATKA PIERSIOWA LEWOBOCZNE
Klatka piersiowa z boku | KLP bocznie
Akciğer yan | AKCIGER YAN | akciğer sol yan | Akci?er yan grafi | Akciger lateral | AC yan grafisi | Göğüs yandan
Toraks yan
Thorax sin | Thorax sidobild | Thorax sida | Lungor sidoprojektion | Lungor sida | Thorax sidovy | Thorax lateralt
Thorax side | Thorax sidebillede | Thorax sidebilde | Thorax fra siden | Thorax sideopptak
Thorax sivu | Keuhkot sivukuva | Thorax sivulta | Keuhkojen sivuprojektio
Hrudník boční | Hrudnik bocni | Plíce - bočná projekce | Hrudník bo?ní | Plíce bok | Pľúca bočná | Pluća profil
Pluća bočno
Mellkas oldalirányú | Mellkas oldal | Mellkas oldalfelvétel | Tüdő oldalról | Mellkas oldalir?ny?
Torace profil | Torace din profil | Radiografie toracica laterala | Torace LL stg
Θώρακος πλάγια | Θώρακας Πλαγία | ΘΩΡΑΚΟΣ ΠΛΑΓ. | Θώρακος προφίλ
ОГК боковая | Органы грудной клетки, левая боковая | Грудная клетка бок | ОГК БОК. | ОГК профиль | ОГК бічна
латеральная проекция
胸部側面 | 胸部 左側面 | 胸部側方向 | 胸部 R→L | 胸部 LAT | 胸部LAT | 胸部　ＬＡＴ | 胸部ｿｸﾒﾝ | 胸部 RL | 胸部　右→左
胸部 侧位 | 胸部左侧位 | 胸片侧位 | 胸部側位 | 胸侧位 | 左侧位 | 胸部侧面 | 胸部(左侧)
흉부 측면 | 흉부측면 | 胸部L | 흉부 L | 흉부 좌측면 | Chest 측면
\u1112\u1172\u11bc\u1107\u116e \u110e\u1173\u11a8\u1106\u1167\u11ab
Thorax seitl\u0069ch | Tho\u0301rax late\u0301ral | BOC\u030cNÍ
Thorax Seitl | Thorax, seitlich li. | Thorax lat. li | Thorax lat re anliegend | Lunge seitlich | Thx seitl.
Thorax rechts seitlich | RÖ THORAX SEITL. | Thorax 2.Eb. | Thorax II. Ebene | Thorax (seitl.) | Thorax links anliegend
Thorax profil D | Thorax Profil Gauche | RX THORAX PROFIL | Rx thorax latérale | PROFIL | Poumon profil | Thorax PFL
Thorax de profil debout | THORAX PROF G | TORAX LATERAL | Torax Lat. | Tórax LAT I | TORAX LATERAL IZQ
Tele de tórax lateral | TORAX L. | PERFIL ESQUERDO | Tórax Perfil Esq | TORAX PERF | TX PERFIL | Rx de Tórax (Perfil)
TORAX - PERFIL ABSOLUTO | Torax (perfil) | Torax incidencia de perfil | TORACE LAT | Torace lat sx | TORACE LL SX
Rx torace laterolaterale | RX TORACE L/L | Torace (LL) | TORACE PROFILO SX | Torace LAT.LAT. | Thorax lat
THORAX LATERAAL LI | X-thorax lateraal | X-Thorax dwars | Thorax zijwaarts | Thorax dwarse | thorax zijde
Thorax zijfoto | X thorax lat links | Klatka piersiowa boczne L | RTG klatki piersiowej - bok lewy | Płuca bok
Pluca boczne | KLATKA PIERSIOWA (BOK) | Kl.piers. bok | Klp bok | Klatka piersiowa L-L | Klatka boczna lewa
Zdjęcie boczne | RTG boczny lewy | Akciger yan grafi | AKCİĞER (YAN) | PAAC YAN | Akc. yan | Toraks lateral
Akciğer sol yan | TORAKS YAN | Akciğer lateral | LATERAL AKCİĞER | Akciğer Yan Grafisi | Göğüs yan
Thorax sida stående | Röntgen lungor sidobild | Lungor lateral | Pulm sida | Hjärta-lungor sida | Lungor vä sida
Thorax vänster lateral | Thorax sin lat | Cor pulm sida | Thorax sidoprojektion | RTG Thorax sideprojeksjon
Thorax venstre side | Thorax lateral | Thorax, fra siden | Røntgen thorax side | Lunger side | Thorax sivukuva
Thx sivu | Keuhkot sivu | Keuhkokuva sivusta | Thorax lat. | Thorax vasen sivu | S+P boční | Srdce a plíce bočně
RTG hrudníku boční | Hrudník bok | Plíce boční | S+P bok | Hrudník levobočná | Mellkas oldalsó | Mellkas oldal ir.
Mellkas harántirányú | Mellkas kétirányú oldal | MELLKAS OLDALIR. | Torace profil stâng | Torace profil stang
Rgf torace profil | TORACE LATERAL | Pulmon profil | Θώρακος (πλάγια) | Θωρακος Πλαγια | ΘΩΡΑΚΑΣ PROFILE | Θώρακας L
Πλάγια θώρακος | ОГК бок | ОГК боковая левая | Грудная клетка, боковая проекция | Легкие бок. | ОГК бок.пр.
Рентгенография легких в боковой проекции | ОГК (лев.бок) | ОГК левая бок. | ОГК правый бок | ОГК лат. | Лёгкие боковая
Органы грудной клетки бок. левая | 胸部 側面像 | 胸部（側面） | 胸部側面 立位 | 胸部 左→右 | 胸部RtoL | 胸部 RtoL
胸部 R to L | 胸部L→R | 胸部　側 | 胸側面 | Chest R→L | 肺 側面 | 側面 | 胸部 L-R | 胸部 Lat | 胸部側面像 R-L
胸部ラテラル | 胸部侧位 | 胸部 左侧位 | 胸部侧位片 | 胸部（侧位） | 胸 侧位 | DR胸侧位 | 胸部DR侧位 | 侧位 | 胸片 侧位
胸部右侧位 | 胸部侧 | 胸側位 | 胸部側位(左) | 胸部左侧 | 흉부 (측면) | 흉부 Lat | 측면 | 가슴 측면 | 흉부측면(Lt)
흉부 좌측 | 흉부 Lateral | Chest Lt. Lat | Chest Lt Lat. | Chest LAT_L | CHEST LAT 2 | CHEST.LATERAL | Chest/Lat
chest-lat | C LAT | CXR LAT | CHEST X-RAY LATERAL | LAT CXR | Lateral | LAT | L LATERAL | LEFT LAT | Chest, Lat
CHESTLATERAL | PED CHEST LAT | Chest Lat (L) | CHEST_LAT_ERECT | Chest lat wall | C-LAT | Chest_Lateral
Chest L Lateral | CHEST SIDE VIEW | CHEST PROFILE | Chest sideview | lateral chest
"""

FRONTAL = """
Chest PA erect | Chest portable | CHEST AP SUPINE | Chest bedside | CHEST | Chest 1 view | CHEST_PA | ChestPA
CHESTPA | CHEST AP_PORTABLE | W Chest PA
Chest bilateral | CHEST BILATERAL RIBS | Laterality: unpaired | Chest, contralateral effusion | Chest PA left side up
Late chest | Chest plateau
CHEST SIDE BY SIDE | Chest right side marker | Chest P-A | CHEST P->A | Chest P to A | Chest late arrival
Chest 2 views | CHEST 2V | Chest two views
Thorax p.a. | Thorax ap liegend | Thorax Bettaufnahme | Thorax im Liegen | Thorax stehend | Thorax Übersicht
Thorax seit 3 Tagen Husten | Thorax in 2 Ebenen | Thorax in zwei Ebenen
Thorax 1. Ebene | Thorax p.a. + seitlich | Rippen beidseits Thorax a.p. | Thorax Lateralität unbekannt
Thorax linke Seite nach oben
Thorax Face | Poumons face | Thorax de face debout | Thorax au lit | Thorax face couché | Thorax en décubitus dorsal
Thorax face et profil
TORAX PA | Torax frente | Torax AP | Tórax AP decúbito supino | Tórax portátil | Tórax PA y lateral | Torax 2 vistas
Tórax PA e perfil | Tórax no leito
Tórax decúbito dorsal | Radiografia de tórax | Torax de pie | TORAX FRENTE E PERFIL
Torace PA | Torace frontale | Torace a letto | Torace in piedi | Torace 2 proiezioni | Torace AP supino
Torace in decubito supino | Esaote S.p.A. Torace
Thorax staand | Thorax liggend | Thorax op bed | Thorax PA | Thorax voorachterwaarts | Thorax twee richtingen
Thorax X
Klatka piersiowa PA | Klatka piersiowa AP leżąc | Klatka piersiowa przednio-tylne | Klatka piersiowa dzieci do 5 lat
Klatka piersiowa 2 projekcje
Akciğer PA | Akciğer grafisi | Akciğer ön-arka | PA akciğer + yan | Toraks yatak başı | AKCİĞER 2 YÖNLÜ
Akciğer ayakta
Thorax frontal | Lungor frontal | Lungor på sal | Thorax liggande | Thorax stående | Lungor sängläge
Thorax vänster sida upp frontal
Thorax forfra | Thorax sengeplads | Thorax liggende | Thorax stående front
Keuhkot etukuva | Thorax makuu | Thorax natiivi | Keuhkot PA
Hrudník PA | Srdce a plíce | Hrudník vleže | Hrudník zadopřední | Pluća PA
Mellkas PA | Mellkas kétirányú | Mellkas fekve | Mellkas AP | Mellkas bal oldali panasz PA
Torace față | Torace fata | Torace in ortostatism | Torace PA si profil
Θώρακος οπισθοπρόσθια | Θώρακος ΟΠ | ΘΩΡΑΚΑΣ F
ОГК прямая | Грудная клетка ПРЯМ. ПР. | ОГК лежа | ОГК в палате | ОГК обзорная | ОГК передне-задняя
胸部正面 | 胸部 P→A | 胸部ポータブル | 胸部 臥位 | 胸部立位 | 胸部2方向 | 胸部正側 | 胸部 後前 | 胸部 ＰＡ
胸部 后前位 | 胸部正位 | 胸片 | 胸部正侧位 | 胸部床边 | 胸部 仰卧位 | 胸部双侧 | 胸部前后位
흉부 정면 | 흉부 후전 | 흉부 P-A | 흉부 포터블 | 흉부 와위
Thorax | Thorax pa | Thorax ap | Thorax p.-a. | Thorax a. p. | Thorax dv | THORAX STEHEND PA | Thorax Liegendaufnahme
Thorax Bett | Thorax Rasterwand | Thorax-Übersicht | Lunge pa | Thorax Kind | Thorax im Sitzen | Rö-Thorax
Hemithorax rechts | Thorax Trauma | Thorax Inspiration | Thorax Exspiration | Thorax sitzend a.p.
Thorax Seitenvergleich | THX PA | Thorax Intensiv | Thorax Bettlunge | Thorax F | Thorax face inspiration
Thorax expiration | Thorax assis | Thorax couché | Poumon de face | Gril costal | RX THORAX FACE | Thorax F debout
Thorax Face 1 incidence | Radio pulmonaire | RP au lit | TORAX POSTEROANTERIOR | Tele de tórax
Telerradiografía de tórax | TORAX 1 PROYECCION | Tórax frontal | Torax AP sentado | Tórax en cama | TÓRAX AP
Torax PA Esp | TORAX P.A. | Tórax (PA) | TORAX AP LEITO | TÓRAX - FRENTE | Tórax frente/perfil | RX Tórax PA/P
Tórax PA+L | RX de Tórax no Leito | Torax ortostático | Torax postero-anterior | Torace | Torace A-P
Torace in 2 proiezioni | Torace supino | Torace standard | RX TORACE | Torace ortostatico | Torace clino
Torace a letto AP | Torace AP seduto | RX torace 2 P | Torace DX | TORACE CR | Torace P.A. | X-thorax | X-thorax bed
X-Thorax staand | Thorax AP bed | Thorax zittend | Thorax voor-achterwaarts | Thorax 2 richtingen | Thorax inspiratie
X thorax 1 richting | IC thorax | Thorax achter-voorwaarts | Klatka piersiowa | Klatka piersiowa P-A
RTG klatki piersiowej | RTG klatki piersiowej PA | Klatka przyłóżkowa | Klatka piersiowa AP łóżko
Klatka tylno-przednia | RTG KLP PA | Dziecko 3 lat klatka | KLATKA DO 6 LAT | Płuca PA | Klatka piersiowa noworodka
Klatka piersiowa stojąc | Akciğer | AKCİĞER P.A. | PAAC | PA AC GRAFİSİ | AC PA | Akciğer (PA) | AKCİĞER AP
Akciğer tek yön | Portabl akciğer | Toraks | Akciğer iki yön | AKCİĞER YATARAK | Göğüs PA | Lungor | Lungor front
Lungor liggande | Lungor bedside | Lungor säng | Hjärta-lungor | Thorax intensiv | Cor pulm | Pulm | Thorax front
Thorax ståprov | Thorax sittande | RTG Thorax | Thorax seng | Røntgen af thorax | Thorax bedside | Thorax sengebillede
Thorax 2 plan | Thorax innside | Thx PA | Thorax vuode | Thx vuodeosasto | Keuhkokuva | Thorax maaten | Thorax istuen
Thorax ap makuu | Thorax etu | S+P | S+P zadopřední | Hrudník | Srdce a plíce vleže | RTG hrudníku PA | S+P na lůžku
Plíce zadopřední | Hrudník předozadní | S+P vstoje | Mellkas | Mellkas szemből | Mellkas felvétel
Mellkas ágy mellett | Mellkas fekvő | Mellkas 2 irányú | Mellkas két irányú | Mellkas p.a. | Rgf toraco-pulmonara
Torace AP | Pulmon | Torace fata si profil | Torace pat | Θώρακος | Θώρακος F | Θώρακας PA | Θώρακος πρόσθια
Θώρακος (ΟΠ) | Θώρακος επί κλίνης | ακτινογραφία θώρακος | Θώρακος όρθια | ОГК | ОГК прямая лежа | Легкие
Легкие прям. | ФЛГ | ФОГ | ОГК в прямой проекции | ОГК палата | ОГК 2 проекции | ОГК прямая + боковая | Грудная клетка
ОГК стоя | ОГК передняя прямая | Рентгенография ОГК | 胸部 | 胸部 正面 立位 | 胸部PA | 胸部AP | 胸部 A→P | 胸部臥位
胸部座位 | 胸部 正面像 | 胸部正面・側面 | 胸部2R | 胸部P-A | 胸部（正面） | 胸部 吸気 | 胸部 呼気 | 肺 | 胸部単純
胸部左右 | 胸部 正・側 | 胸部坐位 | 胸部后前位 | DR胸部正位 | 胸部 床旁 | 胸部正位片 | 胸部卧位 | 胸正位
胸部（正位） | 胸部正侧 | 床边胸片 | 胸部前后位(卧) | 双侧胸部 | 两侧肋骨胸部 | 胸部平片 | 胸腔 | 胸部 立位 正位
흉부 | 흉부 PA | 흉부 AP | 흉부 전후 | 이동식 흉부 | 가슴 정면 | 흉부(PA) | 흉부 앉아서 | Chest PA(흉부)
Portable 흉부 | CHEST PA | CHEST AP | Chest 1V | CHEST 1 VW PORT | XR CHEST PORTABLE 1 VIEW | CXR | CXR PORT
PORTABLE CHEST | CHEST ERECT | CHEST SUPINE | CHEST SINGLE VIEW | Chest Front | CHEST FRONTAL | ED CHEST
CHEST PA GRID | Chest AP Bed | Chest pediatric | CHEST AP SEMI ERECT | CHEST INSP | CHEST EXP | W033 Chest PA
P Chest AP | Chest P.A. | PA | AP | Chest PA - Wall | CHEST A.P. | XR Chest 2 View | CHEST PA AND LATERAL
Chest 2 Views Frontal Lat | Chest PA+LAT | Chest left PICC | Chest R central line | Chest Lt chest tube
Chest Rt PICC placement | Ribs left with chest | Chest for left pneumothorax | Chest left side pain
CHEST AFTER RT THORACENTESIS | Chest collateral | chest plate | Chest platelate | LATE CHEST | Chest inside
Chest outside | Chest isolated | Chest ventilated
"""

OBLIQUE = """
Chest RAO | THORAX SCHRÄG | Thorax oblique droit | Tórax oblicua | Thorax schuin | 胸部斜位 | ОГК косая
Klatka piersiowa skośne | RLO | Hrudník šikmá
"""

NEITHER = """
CHEST LAT DECUB | Chest left lateral decubitus | Thorax Linksseitenlage | Tórax decúbito lateral izq
Thorax zijligging | Thorax sidoläge | Thorax kylkimakuu
胸部 左側臥位 | 胸部侧卧位 | ОГК на боку | Chest lordotic | Thorax apico-lordotic | Torace decubito laterale
Thorax décubitus latéral | Klatka piersiowa na boku
"""


def listed(words: str) -> list[str]:
    return [one.strip() for one in words.replace("\n", "|").split("|") if one.strip()]
