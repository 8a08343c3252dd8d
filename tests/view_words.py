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
